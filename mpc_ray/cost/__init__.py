"""What a pass costs over links of a given distance and width: schedules of rounds, and their time."""
