"""Which folder an export is in, and what is said of other folders."""

import pytest

from nmt_keras.errors import UserError
from nmt_keras.serving.versions import newest_version


@pytest.fixture
def exports(tmp_path):
    """saved/mine/{1,2,10}, and a folder beside the versions that is none."""
    for version in ("1", "2", "10", "draft"):
        folder = tmp_path / "saved" / "mine" / version
        folder.mkdir(parents=True)
        (folder / "saved_model.pb").touch()
    (tmp_path / "saved" / "begun" / ".tmp-1").mkdir(parents=True)
    (tmp_path / "saved" / "begun" / ".tmp-1" / "saved_model.pb").touch()
    return tmp_path / "saved"


def test_the_newest_version_is_the_one_of_the_greatest_number(exports):
    assert newest_version(exports / "mine") == exports / "mine" / "10"
    assert newest_version(exports / "mine" / "2") == exports / "mine" / "2"


@pytest.mark.parametrize(
    "folder, message",
    [
        ("saved", "saved is a folder of exports; give one of them, such as .*saved/mine$"),
        ("none", "^There is no folder .*none; give an export"),
        ("empty", "empty is no export of this toolkit; give"),
        ("run", "run is no export, it is a run directory; export it, or give it as --run_dir to a job that takes one$"),
    ],
)
def test_another_folder_is_said_to_be_what_it_is(exports, tmp_path, folder, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").touch()
    with pytest.raises(UserError, match=message):
        newest_version(tmp_path / folder)
