"""What is to be solved: the space, the outer objective, the problem, the task."""
