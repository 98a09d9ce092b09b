"""The exported JSON Schemas are those of the types."""

from thalweg.schemas.json_schemas import DIRECTORY, TYPES, json_schema, write


def test_schemas_do_not_drift():
    """`schemas/json/` holds exactly the schemas of the types; `python -m thalweg.schemas.json_schemas` writes them."""
    assert {path.name: path.read_bytes() for path in DIRECTORY.iterdir()} == {
        f"{name}.json": json_schema(name) for name in TYPES
    }


def test_schemas_are_written(tmp_path):
    """Writing them makes one file for each type."""
    write(tmp_path / "json")
    assert sorted(path.stem for path in (tmp_path / "json").iterdir()) == sorted(TYPES)
