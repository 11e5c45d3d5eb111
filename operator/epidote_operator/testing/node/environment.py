"""This file is about what a container sees: variables, arguments, and files of its volumes."""

import asyncio
import os
import re
import shutil
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused

INHERITED = ("PATH", "LANG", "HOME", "VIRTUAL_ENV")
SHARED_MEMORY = Path("/dev/shm")
RETRY_S = 0.3
TOKEN_SECONDS = 86_400
REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
METADATA_FIELD = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")


class PodEnvironment:
    """Reads ConfigMaps, Secrets and tokens for one pod."""

    def __init__(self, api: KubeApi, pod: Manifest, *, pod_ip: str) -> None:
        self._api, self._pod, self._pod_ip = api, pod, pod_ip
        self._namespace = pod["metadata"]["namespace"]
        self.missing = ""  # what the pod waits for, for its status

    def field(self, path: str) -> str:
        """A downward API field of the pod as it was when it started."""
        metadata = self._pod["metadata"]
        if match := METADATA_FIELD.fullmatch(path):
            return str(metadata.get(match[1], {}).get(match[2], ""))
        if path == "status.podIP":
            return self._pod_ip
        if path == "status.hostIP":
            return "127.0.0.1"
        top, _, name = path.partition(".")
        return str(self._pod[top].get(name, ""))

    async def variables(self, container: Mapping[str, Any]) -> dict[str, str]:
        """Inherited ones, the API server's address, `envFrom`, `env`, in this order."""
        server = self._api.credentials.server
        found = {name: os.environ[name] for name in INHERITED if name in os.environ}
        found["HOSTNAME"] = self._pod["metadata"]["name"]
        found["KUBERNETES_SERVICE_HOST"] = "127.0.0.1"
        found["KUBERNETES_SERVICE_PORT"] = server.rpartition(":")[2]
        for source in container.get("envFrom", []):
            prefix = source.get("prefix", "")
            for kind, key in (("configmaps", "configMapRef"), ("secrets", "secretRef")):
                if key in source:
                    data = await self.data(kind, source[key]["name"])
                    found |= {prefix + name: value.decode() for name, value in data.items()}
        for variable in container.get("env", []):
            found[variable["name"]] = await self._value(variable, found)
        return found

    async def _value(self, variable: Mapping[str, Any], known: Mapping[str, str]) -> str:
        source = variable.get("valueFrom")
        if source is None:
            return expand(variable.get("value", ""), known)
        if "fieldRef" in source:
            return self.field(source["fieldRef"]["fieldPath"])
        for kind, key in (("configmaps", "configMapKeyRef"), ("secrets", "secretKeyRef")):
            if key in source:
                reference = source[key]
                data = await self.data(kind, reference["name"])
                return data[reference["key"]].decode()
        raise ValueError(f"env {variable['name']}: {sorted(source)} is not supported here")

    async def data(self, kind: str, name: str) -> dict[str, bytes]:
        """The contents of a ConfigMap or Secret, waited for as a kubelet does.

        403 until the node authorizer has seen that a pod of this node uses it.
        """
        path = f"/api/v1/namespaces/{self._namespace}/{kind}/{name}"
        while True:
            try:
                found = await self._api.get(path)
            except ApiRefused as error:
                if error.status != 403:
                    raise
                found = None
            if found is not None:
                break
            self.missing = f"{kind[:-1]} {name!r} not found"
            await asyncio.sleep(RETRY_S)
        self.missing = ""
        data = found.get("data") or {}
        if kind == "secrets":
            return {key: b64decode(value) for key, value in data.items()}
        return {key: value.encode() for key, value in data.items()}

    async def write_volumes(self, folder: Path) -> None:
        """Every volume as a folder of files; an emptyDir or unknown kind is an empty folder."""
        for volume in self._pod["spec"].get("volumes", []):
            target = folder / volume["name"]
            if (volume.get("emptyDir") or {}).get("medium") == "Memory":
                in_memory = self._in_memory(volume["name"])
                in_memory.mkdir(exist_ok=True)
                target.symlink_to(in_memory)
                continue
            target.mkdir(parents=True, exist_ok=True)
            sources = volume["projected"]["sources"] if "projected" in volume else [volume]
            for source in sources:
                for name, content in (await self._files(source)).items():
                    path = target / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)

    def _in_memory(self, name: str) -> Path:
        return SHARED_MEMORY / f"epidote-{self._pod['metadata']['uid']}-{name}"

    def remove_volumes(self) -> None:
        """What lies outside of the pod's folder."""
        for volume in self._pod["spec"].get("volumes", []):
            shutil.rmtree(self._in_memory(volume["name"]), ignore_errors=True)

    async def _files(self, source: Mapping[str, Any]) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        if "configMap" in source:
            files |= await self.data("configmaps", source["configMap"]["name"])
        if "secret" in source:
            secret = source["secret"]
            files |= await self.data("secrets", secret.get("secretName") or secret["name"])
        if "serviceAccountToken" in source:
            files[source["serviceAccountToken"]["path"]] = (await self._token()).encode()
        for part in source.get("downwardAPI", {}).get("items", []):
            files[part["path"]] = self.field(part["fieldRef"]["fieldPath"]).encode()
        return files

    async def _token(self) -> str:
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName", "default")
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        pod = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS, "boundObjectRef": pod},
        }
        while True:
            try:
                return str((await self._api.create(path, body))["status"]["token"])
            except ApiRefused as error:
                if error.status != 403:
                    raise
            await asyncio.sleep(RETRY_S)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by known variables; unknown ones stay, as in a kubelet.

    >>> expand("$(A)-$(B)", {"A": "1"})
    '1-$(B)'
    """
    return REFERENCE.sub(lambda match: variables.get(match[1], match[0]), text)
