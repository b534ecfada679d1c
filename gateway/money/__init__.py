"""What calls cost: prices, holds, settlements, and the events that billing books."""
