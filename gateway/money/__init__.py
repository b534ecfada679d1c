"""What calls cost: prices, holds, bookings, and the events that billing books."""
