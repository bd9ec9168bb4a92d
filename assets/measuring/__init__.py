"""What evaluations measure: picks that a selection is compared with, numbers, models trained on them."""
