-- Number a question to Django, so that the answer to the latest question wins.
-- KEYS: tickets   Returns {ticket, now in ms}.
return {redis.call('INCR', KEYS[1]), int(now_ms())}
