"""Statistics of paired scores: intervals, tests, ranks and sample sizes, of plain numbers by case or patient."""
