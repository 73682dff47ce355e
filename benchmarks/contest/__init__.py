"""The parts of ``benchmarks/serving.py``: our service against those that people would pick."""
