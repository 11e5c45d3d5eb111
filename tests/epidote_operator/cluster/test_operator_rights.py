"""The operator runs with the rights that the chart gives it, and asks for no others.

It does so with a fleet that it makes, changes, rolls and takes away, as the chart's own account.
"""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.credentials import from_kubeconfig, write_kubeconfig
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.fixtures import IMAGE
from epidote_operator.testing.operator_process import OperatorProcess
from epidote_operator.testing.service_story import (
    NAMESPACE,
    change_service,
    get_service,
    service_manifest,
    service_of_its_own,
    settled,
    until_true,
)

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]

CHART = Path(__file__).resolve().parents[3] / "charts/epidote"
SYSTEM, RELEASE = "rights", "release"
# Both revisions find room at once: what is done for want of it needs no other right.
ROOMY = {
    "pool": {"device": "Cpu", "minWorkers": 4, "maxWorkers": 4},
    "rollout": {"maxSurgeWorkers": 4},
}
ACCOUNT, NAME = f"{RELEASE}-epidote-operator", "rightful"


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


CORE, RBAC = "/api/v1", "/apis/rbac.authorization.k8s.io/v1"
FLEET = f"/apis/serving.epidote.dev/v1alpha1/namespaces/{NAMESPACE}/multimodalservices/{NAME}"
DENIED = [  # whatever it watches; rights are asked about before names are looked up
    ("PATCH", FLEET),
    ("PUT", f"{FLEET}/status"),
    ("DELETE", FLEET),
    ("GET", f"{CORE}/namespaces/{NAMESPACE}/secrets"),
    ("GET", f"{CORE}/namespaces/kube-system/secrets"),
    ("PATCH", f"{CORE}/namespaces/{NAMESPACE}/secrets/{NAME}-internal"),
    ("DELETE", f"{CORE}/namespaces/{NAMESPACE}/secrets/{NAME}-internal"),
    ("GET", f"{CORE}/namespaces/{NAMESPACE}/configmaps"),
    ("POST", f"{CORE}/namespaces/{NAMESPACE}/pods/any/exec"),
    ("POST", f"{CORE}/namespaces/{NAMESPACE}/serviceaccounts/default/token"),
    ("DELETE", f"{CORE}/namespaces/{NAMESPACE}/pods"),
    ("GET", f"{CORE}/nodes"),
    ("GET", f"{CORE}/namespaces"),
    ("POST", f"{RBAC}/clusterrolebindings"),
    ("POST", f"{RBAC}/namespaces/{NAMESPACE}/rolebindings"),
    ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"),
    ("GET", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"),
]
ELSEWHERE = [  # where it watches one namespace, it has no right to any other
    ("GET", f"{CORE}/pods"),
    ("GET", f"{CORE}/namespaces/kube-system/pods"),
    ("POST", f"{CORE}/namespaces/kube-system/pods"),
    ("GET", f"{CORE}/namespaces/kube-system/secrets/any"),
    ("GET", "/apis/serving.epidote.dev/v1alpha1/multimodalservices"),
]


async def is_denied(api: KubeApi, method: str, path: str) -> bool:
    try:
        await api.request(method, path, body=None if method == "GET" else {})
    except ApiRefused as refused:
        return refused.status == 403
    return False


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
    settings = {"NAMESPACE": SYSTEM, "NAMESPACES": namespaces, "LEASE_NAME": ACCOUNT}
    settings["LEASE_SECONDS"] = "5"  # renewed every second
    operator = OperatorProcess(kubeconfig, log, settings)
    told, roles = "", paths.collection("rbac.authorization.k8s.io/v1", "rolebindings", NAMESPACE)
    try:
        async with service_of_its_own(api, service_manifest(NAME, IMAGE, **ROOMY)):
            await serves(api, operator, (1, 1, 2), "the fleet serves")
            fewer = [{"name": "Encode", "minWorkers": 2}, {"name": "Decode", "maxWorkers": 1}]
            await change_service(api, NAME, {"roles": fewer, "cache": {"policyName": "none-yet"}})
            await serves(api, operator, (2, 1, 1), "a role is switched")
            former = await revision(api)
            await change_service(api, NAME, {"pool": {"kvBlocks": 77}, "cache": None})
            await serves(api, operator, (2, 1, 1), "the new revision serves", former)
            told = log.read_text()
            async with KubeApi.connected(from_kubeconfig(kubeconfig)) as its_own:
                asked = [*DENIED, *(ELSEWHERE if namespaces else [])]
                let_in = [item for item in asked if not await is_denied(its_own, *item)]
                assert not let_in
            if namespaces:  # its rights are taken away: statuses stay as they were, its pod tells
                await api.delete(f"{roles}/{SYSTEM}-{ACCOUNT.removesuffix('-operator')}-fleets")
                await change_service(api, NAME, {"slo": {"tpotMilliseconds": 600}})

                async def is_not_ready() -> bool:
                    answer = await operator.asked("/readyz")
                    return answer is not None and answer.status_code == 503

                await until_true(is_not_ready, "an operator without rights is not ready")
                answer = await operator.asked("/readyz")
                assert answer is not None
                assert "403 Forbidden" in answer.text
    finally:
        operator.end()
        helm(cluster, "uninstall", RELEASE)
    assert operator.process.returncode == 0, log.read_text()[-3000:]
    for sign in ("orbidden", "ERROR", "tick failed", "not written", "permission"):
        assert sign not in told, told[-3000:]


async def status(api: KubeApi) -> MultimodalServiceStatus:
    resource = await get_service(api, NAME)
    return MultimodalServiceStatus.model_validate(resource.get("status") or {})


async def revision(api: KubeApi) -> str:
    return (await status(api)).revision


async def serves(
    api: KubeApi,
    operator: OperatorProcess,
    workers: tuple[int, int, int],
    what: str,
    former: str = "",
) -> None:
    """Until so many serve, of another revision than `former`, and nothing of that one is left."""
    deployments = paths.collection("apps/v1", "deployments", NAMESPACE)
    old = {"labelSelector": f"epidote.dev/service={NAME},epidote.dev/revision={former}"}

    async def good() -> bool:
        await operator.asked("/healthz")  # it lives
        now = await status(api)
        if not now.conditions or now.revision == former or not settled(*workers)(now):
            return False
        left = await api.request("GET", deployments, params=old) if former else {"items": []}
        return not left["items"]

    await until_true(good, what)
