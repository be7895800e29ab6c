"""Settings that are secret may stand in a file, which a variable names: `SWITCHBOARD_AMQP_URL_FILE=/run/secrets/amqp`.

So container engines hand out secrets, and an environment, which children inherit and `docker inspect` shows, is without
them. Not pydantic-settings' `secrets_dir`: it passes over a file that is not there, and a worker whose secret was not
mounted would then begin on memory:// as if all were well. `Settings` uses it.
"""

import os
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from interfaces.errors import SettingsInvalid

SUFFIX: Final = "_FILE"


def file_of(prefix: str, name: str) -> str | None:
    """The file that the environment names for this setting."""
    return os.environ.get(f"{prefix}{name}{SUFFIX}".upper())


class SecretFiles(PydanticBaseSettingsSource):
    """The secret settings whose files are named in the environment."""

    def __call__(self) -> dict[str, Any]:
        """By field. Raises `SettingsInvalid` where a file cannot be read, or the setting stands in a variable too."""
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                values[name] = value
        return values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """See `PydanticBaseSettingsSource`."""
        return (self._read(field_name) if field.annotation is SecretStr else None), field_name, False

    def _read(self, name: str) -> str | None:
        prefix = self.config.get("env_prefix", "")
        if (file := file_of(prefix, name)) is None:
            return None
        variable = f"{prefix}{name}".upper()
        if variable in os.environ:
            raise SettingsInvalid(f"{variable} and {variable}{SUFFIX} are both set: unset one of them")
        try:
            text = Path(file).read_text().strip()
        except (OSError, ValueError) as error:
            raise SettingsInvalid(f"{variable}{SUFFIX}: {file!r} cannot be read: {_why(error)}") from None
        if not text:
            raise SettingsInvalid(f"{variable}{SUFFIX}: {file!r} is empty")
        return text


def _why(error: OSError | ValueError) -> str:
    # What is not UTF-8 is shown in the error of the decoder, and it may be the secret.
    return (error.strerror or "") if isinstance(error, OSError) else "it is no text"
