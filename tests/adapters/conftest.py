"""What tests of several adapters need."""

import tempfile

import pytest


@pytest.fixture
def own_temporary_folder(tmp_path_factory, monkeypatch):
    """Temporary files go with the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
