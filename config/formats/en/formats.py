"""How the admin writes dates and times: always with the zone."""

DATETIME_FORMAT = "j M Y H:i T"
DATE_FORMAT = "j M Y"
