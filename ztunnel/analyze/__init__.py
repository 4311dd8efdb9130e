"""What is wrong or doubtful in the objects of a mesh, told before it hurts."""
