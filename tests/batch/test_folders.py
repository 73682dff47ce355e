import os

from support.batches import PICTURE, everything

from inkdigits.batch import folders, sources
from inkdigits.batch.sources import open_sources


def test_folder_gives_its_pictures_in_the_order_in_which_paths_sort(tmp_path):
    for name in ("b/2.png", "b/10.JPG", "b.png", "a/z/1.gif", "a.b/1.png", "é.webp", "Z.tiff"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PICTURE)
    for name in ("notes.txt", "b/._2.png", ".png"):
        (tmp_path / name).write_text("not asked for")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    found = [picture for _, picture in everything(tmp_path)]
    expected = sorted(p for p in tmp_path.rglob("*") if p.suffix and p.is_file())
    expected = [p for p in expected if p.suffix != ".txt" and not p.name.startswith("._")]
    assert found == sorted([*expected, tmp_path / "gone.png"])
    assert folders.count(tmp_path) == len(found) == 8


def test_folder_with_more_names_than_are_kept_in_memory_is_sorted_all_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "NAMES_IN_MEMORY", 7)
    monkeypatch.setattr(sources, "SHARD_PICTURES", 4)
    odd = os.fsdecode(b"not-utf8-\xff\n.png")
    for i in range(40):
        (tmp_path / f"{i * 37 % 40}.png").write_bytes(PICTURE)
    (tmp_path / odd).write_bytes(PICTURE)
    found = everything(tmp_path)
    assert [picture for _, picture in found] == sorted(tmp_path.iterdir())
    assert found[-1][0].endswith("not-utf8-\\udcff\n.png")
    assert len(list(open_sources([tmp_path])[0].shards())) == 11
