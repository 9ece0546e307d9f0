"""What the node agent and the service proxy ask of the AWS server, and nothing more: a test says what it answers.

python -m tests.aws_standin        inside a lab, in the AWS server's place

GET  /_lab/instances, /_lab/targets      what was put there last
PUT  /_lab/instances, /_lab/targets      from now on
POST /_lab/target-health                 kept, and applied to the targets' states as the AWS server would
"""

from typing import Any

from aiohttp import web

from lab.addresses import AWS_PORT


class Standin:
    """The two lists, as last put."""

    def __init__(self) -> None:
        self.lists: dict[str, list[dict[str, Any]]] = {"instances": [], "targets": []}

    async def get(self, request: web.Request) -> web.Response:
        return web.json_response(self.lists[request.match_info["list"]])

    async def put(self, request: web.Request) -> web.Response:
        self.lists[request.match_info["list"]] = await request.json()
        return web.json_response({})

    async def target_health(self, request: web.Request) -> web.Response:
        """A draining target stays draining."""
        verdicts = {(v["target_group"], v["id"], v["port"]): v["healthy"] for v in await request.json()}
        for group in self.lists["targets"]:
            for target in group["targets"]:
                healthy = verdicts.get((group["target_group"], target["id"], target["port"]))
                if healthy is not None and target["state"] != "draining":
                    target["state"] = "healthy" if healthy else "unhealthy"
        return web.json_response({})


def main() -> None:
    standin = Standin()
    application = web.Application()
    application.router.add_get("/_lab/{list:instances|targets}", standin.get)
    application.router.add_put("/_lab/{list:instances|targets}", standin.put)
    application.router.add_post("/_lab/target-health", standin.target_health)
    web.run_app(application, host="127.0.0.1", port=AWS_PORT, access_log=None, print=None)


if __name__ == "__main__":
    main()
