"""What our HTTP ports have in common."""
