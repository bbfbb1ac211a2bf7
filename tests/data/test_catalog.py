"""Where data sets lie, and what they may be called."""

import pytest

from selfie_lite.data.catalog import BUNDLED, data_cache, is_plain_name


def test_the_environment_says_where_data_is_kept(monkeypatch, cache):
    assert data_cache() == cache
    monkeypatch.delenv("SELFIE_LITE_DATA")
    assert data_cache() == BUNDLED


@pytest.mark.parametrize("name", ["..", "../cifar10", "a/b", ".hidden", "", "-x", "a b", "ü/"])
def test_names_that_are_paths(name):
    assert not is_plain_name(name)
