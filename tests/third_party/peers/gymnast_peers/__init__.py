"""What systems around World-Gymnast need, written against the public contracts alone: a critic, a judge with the run's
own world model, and a world of three cameras and proprioception."""
