"""The operator logs in where the pod's environment says the API server is."""

from pathlib import Path

import kopf
import pytest

from epidote_operator.handlers import running
from epidote_operator.kube import credentials
from epidote_operator.testing.certificates import make_certificates


def test_a_pods_account_is_used_at_the_address_that_the_pod_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kopf's own log-in knows `kubernetes.default.svc` alone, which not every cluster resolves."""
    make_certificates(tmp_path)
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "namespace").write_text("epidote-system")
    for module in (running, credentials):
        monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.1.2.3")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = running.log_in(in_cluster=credentials.from_service_account().is_in_cluster)
    assert found is not None
    assert (found.server, found.token) == ("https://10.1.2.3:6443", "secret")
    assert found.default_namespace == "epidote-system"
    assert found.ca_path == str(tmp_path / "ca.crt")
    (tmp_path / "token").unlink()
    with pytest.raises(kopf.TemporaryError, match="can't be read"):
        running.log_in(in_cluster=True)
