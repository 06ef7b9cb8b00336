"""Print the README's table of settings from the settings class itself; `check_drift.py` compares the two."""

import json
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from audit_service.settings import Settings


def _default(value: object) -> str:
    if value is None or value is PydanticUndefined or value in ((), {}):
        return "–"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "`" + ",".join(map(str, value)) + "`"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, SecretStr | dict):
        return json.dumps(str(value))
    return f"`{value.as_posix() if isinstance(value, Path) else value}`"


def settings_table() -> str:
    """One row for each setting, in the order of the class."""
    rows = ["| setting | default | what |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=True, validated_data={})
        rows.append(f"| `AUDIT_{name.upper()}` | {_default(default)} | {(field.description or '').replace('|', '∣')} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(settings_table())
