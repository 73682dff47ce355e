from support.commands import run


def test_missing_data_is_one_line_that_says_what_to_do(tmp_path):
    folders = ("--data", tmp_path, "--out", tmp_path / "run", "--no-download")
    assert "--download" in run("train-segmenter", *folders, exit_code=1).output
    assert not (tmp_path / "run").exists()
