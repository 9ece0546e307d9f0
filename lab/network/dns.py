"""The cluster's DNS server, at the address that pods' resolv.conf names."""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import cast

from dnslib import QTYPE, RCODE, RR, A, DNSError, DNSRecord

ADDRESS = "10.96.0.10"
PORT = 53
TTL_SECONDS = 5

Names = Mapping[str, tuple[str, ...]]


def answer(query: bytes, names: Names) -> bytes | None:
    """The answer to a query; None to what is none."""
    try:
        request = DNSRecord.parse(query)
    except DNSError:
        return None
    reply = request.reply(aa=True)
    name = str(request.q.qname).rstrip(".").lower()
    known = names.get(name)
    if known is None:
        # The lab has no way out: names of the world do not exist, and nobody waits for them.
        reply.header.rcode = RCODE.NXDOMAIN
    elif request.q.qtype in {QTYPE.A, QTYPE.ANY}:
        for address in random.sample(known, len(known)):
            reply.add_answer(RR(request.q.qname, QTYPE.A, ttl=TTL_SECONDS, rdata=A(address)))
    return bytes(reply.pack())


class Dns:
    """Serves over UDP and TCP. `names` answers the table of the moment."""

    def __init__(self, names: Callable[[], Names]) -> None:
        self._names = names

    async def run(self) -> None:
        """Serves until cancelled."""
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: _Datagrams(self._names), local_addr=(ADDRESS, PORT))
        server = await asyncio.start_server(self._converse, ADDRESS, PORT)
        await server.serve_forever()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """TCP: each message after its length (RFC 1035, 4.2.2)."""
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(2), "big")
                reply = answer(await reader.readexactly(length), self._names())
                if reply is None:
                    return
                writer.write(len(reply).to_bytes(2, "big") + reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: Callable[[], Names]) -> None:
        self._names = names
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = answer(data, self._names())
        if reply is not None and self._transport is not None:
            self._transport.sendto(reply, addr)
