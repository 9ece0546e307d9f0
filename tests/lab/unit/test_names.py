"""The cluster's names, and what a DNS server answers about them."""

from dnslib import QTYPE, RCODE, DNSRecord

from lab.kube import Json
from lab.network.dns import answer
from lab.network.names import names

REDIS: Json = {"metadata": {"name": "redis", "namespace": "shop"}, "spec": {"clusterIP": "None"}}
WEB: Json = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.7.7"}}


def piece(*endpoints: Json, service: str = "redis") -> Json:
    labels = {"kubernetes.io/service-name": service}
    return {"metadata": {"name": "x", "namespace": "shop", "labels": labels}, "endpoints": list(endpoints)}


def endpoint(address: str, hostname: str = "", *, ready: bool = True) -> Json:
    named = {"hostname": hostname} if hostname else {}
    return {"addresses": [address], "conditions": {"ready": ready}, **named}


TABLE = names(
    [REDIS, WEB],
    [
        piece(endpoint("10.244.0.5", "redis-0"), endpoint("10.244.64.2", "redis-1", ready=False)),
        piece(endpoint("10.244.0.9"), service="web"),
    ],
)


def test_a_service_has_its_address_and_a_headless_one_its_ready_pods() -> None:
    assert TABLE["web.shop.svc.cluster.local"] == ("10.96.7.7",)
    assert TABLE["redis.shop.svc.cluster.local"] == ("10.244.0.5",)


def test_a_pod_of_a_headless_service_has_a_name_while_it_is_ready() -> None:
    assert TABLE["redis-0.redis.shop.svc.cluster.local"] == ("10.244.0.5",)
    assert TABLE["redis-1.redis.shop.svc.cluster.local"] == ()


def ask(name: str, kind: str = "A") -> DNSRecord:
    reply = answer(DNSRecord.question(name, kind).pack(), TABLE)
    assert reply is not None
    return DNSRecord.parse(reply)


def test_a_name_is_answered_whatever_its_case() -> None:
    reply = ask("Redis-0.redis.SHOP.svc.cluster.local.")
    assert [str(r.rdata) for r in reply.rr] == ["10.244.0.5"]
    assert reply.rr[0].ttl == 5


def test_a_name_without_such_a_record_is_empty_and_an_unknown_one_does_not_exist() -> None:
    empty = ask("redis-0.redis.shop.svc.cluster.local", "AAAA")
    assert (empty.header.rcode, empty.rr) == (RCODE.NOERROR, [])
    assert ask("shop.svc.cluster.local").header.rcode == RCODE.NOERROR
    assert ask("redis-9.redis.shop.svc.cluster.local").header.rcode == RCODE.NXDOMAIN
    assert ask("example.com", QTYPE[QTYPE.A]).header.rcode == RCODE.NXDOMAIN


def test_what_is_no_query_is_not_answered() -> None:
    assert answer(b"hello", TABLE) is None
