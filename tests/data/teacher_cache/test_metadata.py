import json

import pytest

from tests.data.teacher_cache.cases import cache_spec, prepared_rows
from trl_prune.data.teacher_cache.cache import TeacherCache
from trl_prune.data.teacher_cache.codecs import Sampled
from trl_prune.data.teacher_cache.writing import write_cache
from trl_prune.errors import InputError


def test_a_folder_without_metadata_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a teacher cache"):
        TeacherCache.open(tmp_path)


def test_metadata_of_another_version_is_refused(tmp_path):
    write_cache(tmp_path / "cache", cache_spec(prepared_rows(), Sampled()))
    path = tmp_path / "cache" / "cache.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 0}))
    with pytest.raises(InputError, match="has format 0; this version reads 1"):
        TeacherCache.open(tmp_path / "cache")
    path.write_text("{}")
    with pytest.raises(InputError, match="is not a cache.json of this version"):
        TeacherCache.open(tmp_path / "cache")
