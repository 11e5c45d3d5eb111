"""This file is about reading one MultimodalService from a YAML file."""

from dataclasses import dataclass
from pathlib import Path

import yaml

from epidote_core.errors import InvalidRequest
from epidote_operator.spec.field_model import API_VERSION
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.parsing import parse_service


@dataclass(frozen=True, kw_only=True)
class ServiceDocument:
    """A service as its owner wrote it."""

    name: str
    namespace: str
    spec: MultimodalServiceSpec


def read_service(path: Path, name: str | None = None) -> ServiceDocument:
    """The only MultimodalService of a file, or the one called `name`.

    Raises:
        InvalidRequest: the file can't be read, or has none, or several and no name was given.
        InvalidSpec: it asks for what can't be honoured.
    """
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if isinstance(d, dict)]
    except (OSError, yaml.YAMLError) as error:
        raise InvalidRequest(f"{path}: not readable as YAML: {error}") from error
    services = [
        document
        for document in documents
        if document.get("kind") == MultimodalServiceSpec.kind
        and (name is None or document.get("metadata", {}).get("name") == name)
    ]
    if len(services) != 1:
        wanted = f"called {name!r}" if name else "and no other"
        raise InvalidRequest(
            f"{path}: wanted one MultimodalService {wanted}, found {len(services)} among "
            f"{[document.get('kind') for document in documents]}"
        )
    document = services[0]
    if document.get("apiVersion") != API_VERSION:
        raise InvalidRequest(
            f"{path}: apiVersion must be {API_VERSION}, got {document.get('apiVersion')!r}"
        )
    metadata = document.get("metadata", {})
    return ServiceDocument(
        name=metadata.get("name", "service"),
        namespace=metadata.get("namespace", "default"),
        spec=parse_service(document.get("spec") or {}),
    )
