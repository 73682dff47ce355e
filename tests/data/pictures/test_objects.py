import numpy as np

from inkdigits.data.pictures.objects import lay_objects


def test_objects_leave_the_box_free_and_are_somewhere_without_one():
    generator, changed = np.random.default_rng(8), 0
    for _ in range(30):
        page = np.full((120, 140), 240, np.float32)
        lay_objects(page, (50.0, 40.0, 80.0, 90.0), generator)
        assert (np.abs(page[40:90, 50:80] - 240) < 20).all()
        free = np.full((120, 140), 240, np.float32)
        lay_objects(free, None, generator)
        changed += bool((free != 240).any())
    assert changed > 15
