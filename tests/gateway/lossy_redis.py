"""A Redis whose answers get lost."""

from gateway.network.redis_connection import Redis, RedisUnavailable


class LosesAnswers(Redis):
    """Loses the answers of scripts while it is `deaf`, and doesn't run the next `away` scripts."""

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
