-- Number a question to Django, so that of two answers the later question wins.
-- KEYS: tickets. Answers {ticket, now in ms}.
return {redis.call('INCR', KEYS[1]), int(now_ms())}
