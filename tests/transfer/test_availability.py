"""Whether images are there, told without a job."""

from PIL import Image

from lowbit.data.availability import _missing
from lowbit.transfer import Recipe, missing_data


def _recipe(**fields):
    return Recipe(checkpoint="nowhere.pth", **fields)


def test_what_ships_with_a_library_is_never_missing():
    assert missing_data(_recipe(dataset="digits")) is None


def test_a_set_that_is_not_there_comes_with_the_command_that_gets_it(tmp_path):
    for dataset in ("cifar10", "flowers102", "folder:birds"):
        said = missing_data(_recipe(dataset=dataset, data_root=str(tmp_path)))
        assert dataset.removeprefix("folder:") in said.lower()
        assert said.count(f"lowbit-bench datasets prepare {dataset} ") == 1


def test_a_folder_that_is_there_is_not_missing(tmp_path):
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "birds" / split / name
            folder.mkdir(parents=True)
            for i in range(10):
                Image.new("RGB", (8, 8), (i * 20, len(split) * 9, ord(name))).save(
                    folder / f"{i}.png"
                )
    _missing.cache_clear()
    assert missing_data(_recipe(dataset="folder:birds", data_root=str(tmp_path))) is None
