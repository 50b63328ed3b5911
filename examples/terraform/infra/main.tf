# What the environment needs before its services start. `terraform_data` is built in: nothing is fetched from a registry.
variable "motto" {
  type = string
}

resource "terraform_data" "motto" {
  input = var.motto
}

output "motto" {
  value = terraform_data.motto.output
}
