//! Desired state of environments, drift and the plan that heals it. No Docker, no Terraform, no processes.
