"""The operator runs with the rights that the chart gives it, and asks for no others."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.credentials import write_kubeconfig
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.operator_process import OperatorProcess
from epidote_operator.testing.service_story import until_true

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

CHART = Path(__file__).resolve().parents[3] / "charts/epidote"
SYSTEM, RELEASE = "rights", "release"
ACCOUNT = f"{RELEASE}-epidote-operator"


def helm(cluster: LocalCluster, *arguments: str) -> None:
    try:
        tool = find_tool("helm")
    except MissingBinaries as missing:
        pytest.skip(str(missing))
    command = [tool, f"--kubeconfig={cluster.kubeconfig}", *arguments, f"--namespace={SYSTEM}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def token(api: KubeApi) -> str:
    """Of the chart's account, as this server makes one for every account."""
    secrets = paths.collection("v1", "secrets", SYSTEM)
    found: list[str] = []

    async def is_there() -> bool:
        for secret in (await api.request("GET", secrets))["items"]:
            named = (secret["metadata"].get("annotations") or {}).get(
                "kubernetes.io/service-account.name"
            )
            if named == ACCOUNT and "token" in (secret.get("data") or {}):
                found.append(base64.b64decode(secret["data"]["token"]).decode())
        return bool(found)

    await until_true(is_there, "the account has a token")
    return found[0]


@pytest.mark.parametrize("namespaces", ["", "default"], ids=["everywhere", "one namespace"])
async def test_the_charts_account_is_refused_nothing_that_the_operator_asks_for(
    cluster: LocalCluster, api: KubeApi, tmp_path: Path, namespaces: str
) -> None:
    options = ["--disable-openapi-validation", "--set=webhook.enabled=false", "--set=replicas=0"]
    options += ["--set=crds.install=false", "--create-namespace"]
    options += [f"--set=watchNamespaces={{{namespaces}}}"] if namespaces else []
    helm(cluster, "install", RELEASE, str(CHART), *options)
    administrator = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]
    kubeconfig, log = tmp_path / "kubeconfig", tmp_path / "log"
    write_kubeconfig(
        kubeconfig,
        context="operator",
        server=administrator["server"],
        authority=Path(administrator["certificate-authority"]),
        user={"token": await token(api)},
        namespace=SYSTEM,
    )
    settings = {
        "NAMESPACE": SYSTEM,
        "NAMESPACES": namespaces,
        "LEASE_NAME": ACCOUNT,
        "LEASE_SECONDS": "5",  # renewed every second
    }
    operator = OperatorProcess(kubeconfig, log, settings)
    lease = paths.item("coordination.k8s.io/v1", "leases", SYSTEM, ACCOUNT)
    try:
        renewals: set[str] = set()

        async def leads_for_a_while() -> bool:
            await operator.asked("/healthz")  # it lives
            spec = (await api.get(lease) or {}).get("spec", {})
            if spec.get("holderIdentity"):
                renewals.add(spec["renewTime"])
            return len(renewals) >= 3  # whatever it asks for has been asked by then

        await until_true(leads_for_a_while, "the operator leads")
    finally:
        operator.end()
        helm(cluster, "uninstall", RELEASE)
    told = log.read_text()
    assert operator.process.returncode == 0, told[-3000:]
    for sign in ("Forbidden", "ERROR", "WARNING", "permission"):
        assert sign not in told, told[-3000:]
