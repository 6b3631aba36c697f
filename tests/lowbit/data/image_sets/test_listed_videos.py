"""Videos named by lists, in the form in which AR-Net publishes ActivityNet and Mini-Kinetics."""

import pytest
from PIL import Image

from lowbit.data import Center, locate, open_images

TRAIN = "v_a,4,1\nv_b,2,0,1\nv_c,2,1,0\nv_d,3,0\nv_e,2,1\nv_f,2,1,1\n"
VAL = "v_g,2,0\nv_h,2,1\nv_i,2,0,1\n"


def make(root, train=TRAIN, val=VAL, names="Diving\nRunning\n", folders="abcdefghi"):
    """Write lists and two frames a video, gray by video."""
    path = root / "acts"
    path.mkdir(exist_ok=True)
    (path / "actnet_train_split.txt").write_text(train)
    (path / "actnet_val_split.txt").write_text(val)
    if names is not None:
        (path / "classInd.txt").write_text(names)
    for place, letter in enumerate(folders):
        folder = path / "frames" / f"v_{letter}"
        folder.mkdir(parents=True, exist_ok=True)
        for frame in (1, 2):
            Image.new("RGB", (12, 10), (20 * place + frame,) * 3).save(
                folder / f"image_{frame:05}.png"
            )
    return root


def test_lists_give_splits_first_labels_and_all_targets(tmp_path):
    root = make(tmp_path)
    train = open_images("frames:acts@2", "trainval", root=root)
    test = open_images("frames:acts@2", "test", root=root)
    assert (train.classes, train.frames, len(train), len(test)) == (("Diving", "Running"), 2, 6, 3)
    # by first label, the lowest, then by name: v_b v_c v_d, v_a v_e v_f; v_g v_i, v_h
    assert train.labels.tolist() == [0, 0, 0, 1, 1, 1] and test.labels.tolist() == [0, 0, 1]
    assert train.targets.int().tolist() == [[1, 1], [1, 1], [1, 0], [0, 1], [0, 1], [0, 1]]
    assert test.targets.int().tolist() == [[1, 0], [1, 1], [0, 1]]
    (batch,) = test.batches(Center(size=8, resize=8), batch_size=9, device="cpu", workers=0)
    assert batch.shape == (3, 2, 3, 8, 8)
    light = batch.flatten(1).mean(1)
    assert light[0] < light[2] < light[1]  # v_g, v_h, v_i
    counts = locate("frames:acts@2", root=root).counts
    assert counts == {"train": 4, "val": 2, "test": 3}  # a tenth of a class, at least one


def test_labels_are_part_of_the_identity(tmp_path):
    before = locate("frames:acts", root=make(tmp_path)).split_sha256
    assert locate("frames:acts", root=tmp_path).split_sha256 == before
    make(tmp_path, val=VAL.replace("v_i,2,0,1", "v_i,2,0,0"))  # of the same length
    assert locate("frames:acts", root=tmp_path).split_sha256 != before


def test_mini_kinetics_lists_have_spaces_one_label_and_no_names(tmp_path):
    path = tmp_path / "acts"
    root = make(tmp_path)
    for part in ("train", "val"):
        (path / f"actnet_{part}_split.txt").unlink()
    (path / "classInd.txt").unlink()
    (path / "mini_train_videofolder.txt").write_text("v_a 2 0\nv_b 2 1\nv_c 2 0\nv_d 2 1\n")
    (path / "mini_val_videofolder.txt").write_text("v_e 2 0\nwith space/v 3 2 1\n")
    (path / "frames" / "v_i").rename(tmp_path / "v")
    (path / "frames" / "with space").mkdir()
    (tmp_path / "v").rename(path / "frames" / "with space" / "v 3")
    test = open_images("frames:acts", "test", root=root)
    assert test.classes == ("0", "1") and test.labels.tolist() == [0, 1]


def test_a_third_list_is_the_test_set_and_val_is_whole(tmp_path):
    root = make(tmp_path, val="v_g,2,0\nv_h,2,1\n")
    (root / "acts" / "test_split.txt").write_text("v_i,2,0\nv_f,2,1\n")
    (root / "acts" / "actnet_train_split.txt").write_text(TRAIN.replace("v_f,2,1,1\n", ""))
    counts = locate("frames:acts", root=root).counts
    assert counts == {"train": 5, "val": 2, "test": 2}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train": "v_a,4\n"}, r"line 1 is not VIDEO,FRAMES,LABEL"),
        ({"train": TRAIN + "../v_a,2,0\n"}, r"line 7 is not VIDEO,FRAMES,LABEL"),
        ({"train": TRAIN + "v_a,2,0\n"}, "lists v_a twice; nothing was loaded"),
        ({"val": VAL + "v_a,2,0\n"}, "lists v_a twice; nothing was loaded"),
        ({"val": "v_g,2,0\n"}, r"1 classes have fewer than 1 videos in test \(Running\)"),
        ({"names": "Diving\n"}, "has label 1, and .*classInd.txt names 1 classes"),
        ({"folders": "abcdefgh"}, r"1 of 9 listed videos have no folder in .*frames \(v_i\)"),
        ({"val": "\n"}, "lists no video; nothing was loaded"),
        ({"val": "v_g,2,999999\n"}, "at most 100,000 classes are read"),
    ],
)
def test_lists_that_do_not_fit_are_refused(tmp_path, changes, told):
    with pytest.raises(ValueError, match=told):
        locate("frames:acts", root=make(tmp_path, **changes))


def test_two_lists_of_a_split_and_a_missing_one_are_refused(tmp_path):
    root = make(tmp_path)
    (root / "acts" / "val_split.txt").write_text(VAL)
    with pytest.raises(ValueError, match="two lists of val"):
        locate("frames:acts", root=root)
    for name in ("val_split.txt", "actnet_val_split.txt"):
        (root / "acts" / name).unlink()
    with pytest.raises(FileNotFoundError, match="has lists of train; nothing was loaded"):
        locate("frames:acts", root=root)
