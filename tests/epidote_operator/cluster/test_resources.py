"""What the CRDs, the webhook and the chart do on a real API server."""

import asyncio
import datetime as dt
import json
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import kopf
import pytest
import yaml

from epidote_operator.act.webhook_tls import publish_authority, shared_certificates, write_files
from epidote_operator.handlers.admission import register
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.kube.paths import API_VERSION, collection, item, service
from epidote_operator.spec.crds import RESOURCES, SERVICE
from epidote_operator.spec.parsing import parse_service
from epidote_operator.testing import loopback_webhook
from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.client_tools import find_tool
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.faults import spoiled
from epidote_operator.testing.generated_services import service as generated
from epidote_operator.testing.loopback_webhook import configuration
from epidote_operator.testing.service_faults import FAULTS

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = sorted((ROOT / "crds/samples").glob("*.yaml"))
PLURALS = {resource.kind: resource.plural for resource in RESOURCES}
CONFIGURATION = loopback_webhook.API, loopback_webhook.PLURAL
NAMESPACE = "resources"
DRY = {"dryRun": "All"}
NUM_GENERATED = 1000

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.xdist_group("cluster")]


@pytest.fixture(autouse=True)
async def _namespace(api: KubeApi) -> AsyncIterator[None]:
    """A namespace of our own, left empty: operators of other tests may watch it."""
    metadata = {"name": NAMESPACE, "labels": {"name": NAMESPACE}}
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    await api.apply(f"/api/v1/namespaces/{NAMESPACE}", body)
    yield
    for plural in PLURALS.values():
        await api.delete_all(collection(API_VERSION, plural, NAMESPACE), "")


def tool(name: str) -> Path:
    try:
        return find_tool(name)
    except MissingBinaries as missing:
        pytest.skip(str(missing))


def run(cluster: LocalCluster, name: str, *arguments: str) -> str:
    done = subprocess.run(
        [tool(name), f"--kubeconfig={cluster.kubeconfig}", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest(name: str, spec: dict[str, Any], kind: str = "MultimodalService") -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
async def test_every_sample_is_stored_with_its_defaults(api: KubeApi, path: Path) -> None:
    sample = yaml.safe_load(path.read_text(encoding="utf-8"))
    sample["metadata"]["namespace"] = NAMESPACE
    kind, name = sample["kind"], sample["metadata"]["name"]
    stored = await api.apply(item(API_VERSION, PLURALS[kind], NAMESPACE, name), sample)
    if kind == "MultimodalService":
        assert stored["spec"]["scaling"]["tickSeconds"] >= 1
        # What the server filled in is what the operator assumes without it.
        assert parse_service(stored["spec"]) == parse_service(sample["spec"])


async def test_generated_services_are_accepted_and_their_faults_refused_by_field(
    api: KubeApi,
) -> None:
    """The schema's share of the faults: the server of the test cluster has no CEL."""
    path = collection(API_VERSION, "multimodalservices", NAMESPACE)
    limit = asyncio.Semaphore(8)

    async def post(seed: int) -> str | None:
        rng = Random(seed)
        spec = generated(rng)
        fault = rng.choice(FAULTS) if seed % 2 else None
        body = manifest(f"g-{seed}", spec if fault is None else spoiled(spec, fault))
        async with limit:
            try:
                await api.request("POST", path, params=DRY, body=body)
            except ApiRefused as error:
                if fault is None or not fault.schema:
                    return f"{seed}: a good schema was refused: {error}"
                named = fault.is_named_in(str(error))
                return None if named else f"{seed} {fault.name}: {error}"
        return f"{seed}: {fault.name} was accepted" if fault and fault.schema else None

    found = await asyncio.gather(*(post(seed) for seed in range(NUM_GENERATED)))
    assert [line for line in found if line] == []


async def test_scale_moves_the_pool_and_nothing_else(cluster: LocalCluster, api: KubeApi) -> None:
    spec = {
        "model": {"uri": "builtin://demo"},
        "pool": {"device": "Cpu", "maxWorkers": 9, "workers": 4},
        "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
        "scaling": {"owner": "External"},
    }
    await api.apply(service(NAMESPACE, "scaled"), manifest("scaled", spec))
    run(cluster, "kubectl", f"--namespace={NAMESPACE}", "scale", "mms/scaled", "--replicas=7")
    stored = await api.request("GET", service(NAMESPACE, "scaled"))
    assert stored["spec"]["pool"]["workers"] == 7
    scale = await api.request("GET", f"{service(NAMESPACE, 'scaled')}/scale")
    assert scale["spec"]["replicas"] == 7


async def test_kubectl_explains_and_prints(cluster: LocalCluster, api: KubeApi) -> None:
    async with asyncio.timeout(120):  # the server publishes a new kind's document in its own time
        while "multimodalservices" not in json.dumps(await api.request("GET", "/openapi/v2")):
            await asyncio.sleep(0.5)
    told = run(cluster, "kubectl", "explain", "mms.spec.pool.gpuBudget")
    assert "Most GPUs that the service may hold" in " ".join(told.split())
    await api.apply(service(NAMESPACE, "shown"), manifest("shown", generated(Random(6))))
    listed = run(cluster, "kubectl", f"--namespace={NAMESPACE}", "get", "mms", "shown")
    columns = [column.name.upper() for column in SERVICE.columns if not column.priority]
    assert listed.splitlines()[0].split() == ["NAME", *columns]


@asynccontextmanager
async def webhook(api: KubeApi, folder: Path) -> AsyncIterator[None]:
    """The operator's webhook on loopback, as the chart's configuration would have it called."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = await shared_certificates(
        api, NAMESPACE, "webhook-tls", ["127.0.0.1"], now=dt.datetime.now(dt.UTC)
    )
    write_files(folder, made)
    registry = kopf.OperatorRegistry()
    register(registry)
    settings = kopf.OperatorSettings()
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        port=port,
        certfile=folder / "tls.crt",
        pkeyfile=folder / "tls.key",
    )
    stop, ready = asyncio.Event(), asyncio.Event()

    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    task = asyncio.create_task(
        kopf.operator(
            registry=registry,
            settings=settings,
            standalone=True,
            clusterwide=True,
            stop_flag=stop,
            ready_flag=ready,
        )
    )
    hook = configuration("epidote", PLURALS.values(), namespace=NAMESPACE, port=port)
    path = item(*CONFIGURATION, None, "epidote")
    try:
        async with asyncio.timeout(60):
            await ready.wait()
        await api.create(collection(*CONFIGURATION), hook)
        assert await publish_authority(api, "epidote", made.authority)
        assert not await publish_authority(api, "epidote", made.authority)
        await asyncio.sleep(0)
        yield
    finally:
        await api.delete(path)
        stop.set()
        await asyncio.wait([task], timeout=30)


async def test_the_webhook_refuses_what_no_schema_can(
    cluster: LocalCluster, api: KubeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    path = collection(API_VERSION, "multimodalservices", NAMESPACE)
    faults = [fault for fault in FAULTS if not fault.schema]
    async with webhook(api, tmp_path):
        await until_asked(api, path)
        for number, fault in enumerate(faults):
            spec = generated(Random(number))
            await api.request("POST", path, params=DRY, body=manifest("good", spec))
            with pytest.raises(ApiRefused) as refused:
                await api.request(
                    "POST", path, params=DRY, body=manifest("bad", spoiled(spec, fault))
                )
            assert f"{fault.path}: " in str(refused.value), fault.name


async def until_asked(api: KubeApi, path: str) -> None:
    """The API server takes a moment to hear of a new webhook."""
    async with asyncio.timeout(60):
        while True:
            bad = manifest("asked", {**generated(Random(1)), "model": {"uri": "s3://x"}})
            try:
                await api.request("POST", path, params=DRY, body=bad)
            except ApiRefused as error:
                if "spec.model.uri" in str(error):
                    return
            await asyncio.sleep(0.1)


async def test_two_operators_share_one_certificate(api: KubeApi) -> None:
    now = dt.datetime.now(dt.UTC)
    made = await asyncio.gather(
        *(shared_certificates(api, NAMESPACE, "two", ["a.b.svc"], now=now) for _ in range(4))
    )
    assert len({found.certificate for found in made}) == 1
    later = now + dt.timedelta(days=300)
    renewed = await shared_certificates(api, NAMESPACE, "two", ["a.b.svc"], now=later)
    assert renewed.certificate != made[0].certificate


async def test_the_chart_installs_upgrades_and_leaves_the_services(
    cluster: LocalCluster, api: KubeApi
) -> None:
    await api.apply(service(NAMESPACE, "kept"), manifest("kept", generated(Random(5))))

    def helm(*arguments: str) -> None:
        run(cluster, "helm", *arguments, "--namespace=system")

    chart = str(ROOT / "charts/epidote")
    # The old server's OpenAPI document knows no CEL: helm would refuse the CRDs on its side.
    options = ["--disable-openapi-validation", "--set=webhook.enabled=false"]
    install = ["--create-namespace", "--set=crds.install=false"]
    helm("install", "release", chart, *options, *install)
    helm("upgrade", "release", chart, *options, "--set=crds.install=false", "--set=replicas=2")
    account = "--as=system:serviceaccount:system:release-epidote-operator"
    for verb, what, allowed in (
        ("list", "pods", True),
        ("create", "pods", True),
        ("patch", "multimodalservices.serving.epidote.dev --subresource=status", True),
        ("patch", "multimodalservices.serving.epidote.dev", False),
        ("deletecollection", "deployments.apps", False),
        ("create", "events", True),
        ("get", "secrets", True),
        ("list", "secrets", False),
        ("watch", "secrets", False),
        ("delete", "secrets", False),
        ("delete", "multimodalservices.serving.epidote.dev", False),
        ("create", "clusterroles.rbac.authorization.k8s.io", False),
        ("get", "nodes", False),
        ("create", "pods --subresource=exec", False),
        ("delete", "namespaces", False),
    ):
        asked = ["auth", "can-i", verb, *what.split(), f"--namespace={NAMESPACE}", account]
        done = subprocess.run(
            [tool("kubectl"), f"--kubeconfig={cluster.kubeconfig}", *asked],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.strip() == ("yes" if allowed else "no"), f"{verb} {what}"
    helm("uninstall", "release")
    assert await api.get(service(NAMESPACE, "kept")) is not None
