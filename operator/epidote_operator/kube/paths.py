"""This file is about the URL paths of Kubernetes objects."""

GROUP = "serving.epidote.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"


def collection(api_version: str, plural: str, namespace: str | None = None) -> str:
    """The path of a kind's list.

    >>> collection("v1", "pods", "a")
    '/api/v1/namespaces/a/pods'
    >>> collection("apps/v1", "deployments")
    '/apis/apps/v1/deployments'
    """
    root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    return f"{root}/namespaces/{namespace}/{plural}" if namespace else f"{root}/{plural}"


def item(api_version: str, plural: str, namespace: str | None, name: str) -> str:
    """The path of one object.

    >>> item("v1", "pods", "a", "p-0")
    '/api/v1/namespaces/a/pods/p-0'
    """
    return f"{collection(api_version, plural, namespace)}/{name}"


def pod(namespace: str, name: str) -> str:
    return item("v1", "pods", namespace, name)


def service(namespace: str, name: str) -> str:
    """The path of a MultimodalService."""
    return item(API_VERSION, "multimodalservices", namespace, name)
