"""This file is about what a service is started with: frozen, picklable, passed by hand."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role, Stage
from epidote_gateway.settings import GatewaySettings

APP_NAME = "epidote"
ENGINE = "Engine"
FLEET = "Fleet"
GATEWAY = "Gateway"
WORKER_RESOURCE = "epidote_worker"  # one on every node that joined as a worker
HEAD_RESOURCE = "epidote_head"  # keeps register and gateways on the head


class Ingress(StrEnum):
    """Who listens for HTTP.

    OWN is the default on one host: Serve's path costs 0.5-2 ms per streamed item (measured with
    Ray 2.60 on 2 cores: 900-2,700 SSE tokens/s over 8 streams through its proxy, 5,600 with
    HAProxy), and the gateway has to carry 10,000. SERVE keeps Serve's proxies, for clusters that
    are set up around them.
    """

    OWN = "own"  # each gateway replica runs uvicorn on host:port (SO_REUSEPORT)
    SERVE = "serve"  # the gateway is a Serve ingress behind Serve's proxy


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """What every worker is told; its role comes from the register."""

    model: str
    dtype: str = "auto"
    device: str = "cpu"
    kv_cache_dtype: str = "auto"  # or "int8", "fp8": codes of one byte
    kv_transfer_dtype: str = "auto"  # or "int8", "fp8": what KV crosses a network as, with a loss
    tensor_parallel_size: int = 1  # processes that a worker's language model is cut over
    expert_parallel: bool = False  # its ranks hold whole experts, not a slice of every one
    num_redundant_experts: int = 0  # slots more than experts, in every layer that has some
    num_kv_blocks: int | None = None  # None: the engine's own choice
    quantization: str | None = None  # or "int8", "fp8": the language model's weights
    compile_vision: bool = False
    gpu_memory_utilization: float = 0.85  # of `gpu_share`, weights and all
    gpu_share: float = 1.0  # of a GPU's memory that is one worker's
    max_model_len: int | None = None
    num_threads: int = 1  # torch threads a worker; more than cores / workers makes all slower
    run_directory: str = ""  # where its sockets lie; short (a socket's path has 107 bytes at most)
    tcp_host: str | None = None  # workers of several hosts also listen there
    drain_s: float = 20.0  # a worker that is told to stop waits this long for its streams
    num_gpus: float = 0.0  # Ray resources of one worker
    num_cpus: float = 0.0
    joins: bool = False  # workers are nodes of their own, which `epidote worker` adds

    def __post_init__(self) -> None:
        """Refuse what no worker could start with.

        Raises:
            InvalidRequest: naming the flags.
        """
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InvalidRequest(
                "--gpu-memory-utilization: must be more than 0 and at most 1, got "
                f"{self.gpu_memory_utilization:g}",
                "gpu_memory_utilization",
            )
        if "auto" not in (self.kv_cache_dtype, self.kv_transfer_dtype):
            raise InvalidRequest(
                f"--kv-transfer-dtype {self.kv_transfer_dtype} with --kv-cache-dtype "
                f"{self.kv_cache_dtype}: the cache's own codes travel as they are",
                "kv_transfer_dtype",
            )

    @property
    def resources(self) -> dict[str, float]:
        """Ray's custom resources of one worker: a node that joined has room for one."""
        return {WORKER_RESOURCE: 1.0} if self.joins else {}


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """One service: a fleet of equal workers, a register, and the gateway before them."""

    worker: ReplicaSettings
    shape: Mapping[Role, int]
    stages: tuple[Stage, ...] = tuple(Stage)  # that the model has
    host: str = "127.0.0.1"
    port: int = 8000
    ingress: Ingress = Ingress.OWN
    num_gateways: int = 1
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    ray_host: str = ""  # "": a private cluster on this machine; else workers join it there
    ray_port: int = 0

    @property
    def num_workers(self) -> int:
        return sum(self.shape.values())
