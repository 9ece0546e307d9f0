"""Whether a replica may hold, as a master, what its master holds: replicas do not mind `maxmemory`, masters do."""

from eks_rolling.observed.redis import Server


def too_small(name: str, target: Server, source: Server) -> str:
    """Why `target`, which is called so, must not take over from `source`: it would refuse writes, or evict keys that
    were acknowledged. "" if it may: also where the two have the same limit, which changes nothing."""
    limit, held = target.maxmemory, max(source.used_bytes, target.used_bytes)
    if not limit or held <= limit or 0 < source.maxmemory <= limit:
        return ""
    return (
        f"{name} may hold {limit:,} bytes (maxmemory) and would have {held:,}: as a master it would refuse writes or "
        "evict keys"
    )
