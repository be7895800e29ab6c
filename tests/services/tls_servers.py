"""A RabbitMQ node and Redis servers that listen for TLS, with certificates a test may change while they run.

Their plain listeners stay, by which they are started, asked and stopped. Used by the tests of TLS.
"""

import redis

from tests.services.authority import Authority, Issued
from tests.services.local import LocalBroker
from tests.services.redis_node import RedisNode, wait_for
from tests.services.servers import free_port

PRIMARY = "primary"


class TlsBroker(LocalBroker):
    """RabbitMQ with TLS and EXTERNAL; a client's certificate is welcome, or asked for where `must_show`."""

    def __init__(self, authority: Authority, issued: Issued, *, must_show: bool = False) -> None:
        super().__init__()
        self.tls_port = free_port()
        self._certificate, self._key = self.directory / "server.crt", self.directory / "server.key"
        self._copy(issued)
        lines = [
            f"listeners.ssl.default = 127.0.0.1:{self.tls_port}",
            f"ssl_options.cacertfile = {authority.file}",
            f"ssl_options.certfile = {self._certificate}",
            f"ssl_options.keyfile = {self._key}",
            "ssl_options.verify = verify_peer",
            f"ssl_options.fail_if_no_peer_cert = {str(must_show).lower()}",
            "auth_mechanisms.1 = PLAIN",
            "auth_mechanisms.2 = EXTERNAL",
            "ssl_cert_login_from = common_name",
        ]
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))
        (self.directory / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")

    def show(self, issued: Issued) -> None:
        """Have it show another certificate from the next connection on."""
        self._copy(issued)
        self.rabbitmqctl_now("eval", "ssl:clear_pem_cache().")

    def _copy(self, issued: Issued) -> None:
        self._certificate.write_bytes(issued.certificate.read_bytes())
        self._key.write_bytes(issued.key.read_bytes())


class TlsRedis(RedisNode):
    """Redis with TLS; clients need no certificate until `require`."""

    def __init__(self, authority: Authority, issued: Issued, *options: str, name: str = "redis") -> None:
        self.tls_port = free_port()
        tls = ["--tls-port", str(self.tls_port), "--tls-ca-cert-file", str(authority.file)]
        tls += [
            "--tls-cert-file",
            str(issued.certificate),
            "--tls-key-file",
            str(issued.key),
            "--tls-auth-clients",
            "no",
        ]
        super().__init__(*options, *tls, name=name)

    def show(self, issued: Issued) -> None:
        """Have it show another certificate from the next connection on."""
        self._set("tls-cert-file", issued.certificate, "tls-key-file", issued.key)

    def require(self, answer: str) -> None:
        """Whether clients must show a certificate: `yes` or `no`."""
        self._set("tls-auth-clients", answer)

    def _set(self, *words: object) -> None:
        with redis.Redis(port=self.port) as client:
            client.execute_command("CONFIG", "SET", *map(str, words))


def tls_cluster(authority: Authority, issued: Issued) -> TlsRedis:
    """A Redis Cluster of one node, not yet started; `own_all_slots` when it is."""
    return TlsRedis(authority, issued, "--cluster-enabled", "yes", "--tls-cluster", "yes", name="redis-cluster")


def own_all_slots(node: TlsRedis) -> None:
    """Have the one node of a cluster serve every key."""
    node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_for("a cluster that serves", lambda: "cluster_state:ok" in str(node.ask("CLUSTER", "INFO")))


def tls_sentinel(authority: Authority, issued: Issued, primary: TlsRedis) -> TlsRedis:
    """A sentinel, not yet started, that watches `primary` by TLS."""
    sentinel = TlsRedis(authority, issued, "sentinel.conf", "--sentinel", "--tls-replication", "yes", name="sentinel")
    monitor = f"sentinel monitor {PRIMARY} 127.0.0.1 {primary.tls_port} 1\n"
    (sentinel.directory / "sentinel.conf").write_text(monitor)
    return sentinel
