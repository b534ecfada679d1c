"""A Redis whose answers get lost."""

from gateway.network.redis_connection import Redis, RedisUnavailable


class LosesAnswers(Redis):
    """Runs scripts, but loses their answers while it is `deaf`, or the next `away` of them."""

    deaf = False
    away = 0

    async def run(self, script, keys, *arguments):
        if self.away:
            self.away -= 1
            raise RedisUnavailable("nobody is there")
        answer = await super().run(script, keys, *arguments)
        if self.deaf:
            raise RedisUnavailable("the answer got lost")
        return answer
