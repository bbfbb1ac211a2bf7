"""Where data sets lie, and what they may be called."""

from pathlib import Path

import pytest

from selfie_lite import SelfieLiteError
from selfie_lite.data.catalog import BUNDLED, data_cache, is_plain_name


def test_the_environment_says_where_data_is_kept(monkeypatch, cache):
    assert data_cache() == cache
    monkeypatch.delenv("SELFIE_LITE_DATA")
    assert data_cache() == BUNDLED
    monkeypatch.setenv("SELFIE_LITE_DATA", "")
    assert data_cache() == BUNDLED
    monkeypatch.setenv("SELFIE_LITE_DATA", "~/sets")
    assert data_cache() == Path("~/sets").expanduser()
    monkeypatch.setenv("SELFIE_LITE_DATA", __file__)
    with pytest.raises(SelfieLiteError, match="SELFIE_LITE_DATA should name a folder, but .*test_catalog.py is none"):
        data_cache()


@pytest.mark.parametrize("name", ["..", "../cifar10", "a/b", ".hidden", "", "-x", "a b", "ü/", "a" * 101])
def test_names_that_are_paths(name):
    assert not is_plain_name(name)
