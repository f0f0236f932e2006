"""Collection is held off, and on again whatever happens."""

import gc

import pytest
from gatewise.rtl.collector import no_collection


def within():
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
        raise ValueError("within")


def test_collection_is_as_it_was_afterwards():
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"):
        within()
    assert gc.isenabled()
