"""This file is about log lines: the event first, then its fields."""

import logging

_KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class FieldsFormatter(logging.Formatter):
    """`time LEVEL logger: event  field=value ...`; fields are those given as `extra`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        fields = {
            name: value
            for name, value in record.__dict__.items()
            if name not in _KNOWN and not name.startswith(("k8s_", "settings"))
        }
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        first, newline, rest = line.partition("\n")  # a traceback follows the fields
        return f"{first}  {told}{newline}{rest}" if told else line


def log_to_stderr(level: str) -> None:
    """One handler at the root; libraries that tell every request are quietened."""
    handler = logging.StreamHandler()
    handler.setFormatter(FieldsFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "kopf"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
