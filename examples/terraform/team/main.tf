# What a team keeps as code beside the line: an environment to try things in, and who has a feature.
# Where the server is and who asks is said by ANDON_SERVER and ANDON_TOKEN; where the state is, by TF_HTTP_ADDRESS.
terraform {
  required_providers {
    andon = {
      source  = "andon.dev/andon/andon"
      version = "0.1.0"
    }
  }
  backend "http" {}
}

provider "andon" {
  project = "shop"
}

resource "andon_environment" "try" {
  name = "try"
  like = "production"
  ttl  = "8h"
  wait = "1m" # until it serves, for what is read from it below
}

resource "andon_scale" "try" {
  environment = andon_environment.try.name
  service     = "web"
  replicas    = 2
}

resource "andon_flag" "checkout" {
  key             = "new-checkout"
  variants        = jsonencode({ on = true, off = false })
  default_variant = "off"
  targeting       = jsonencode({ if = [{ "==" = [{ var = "group" }, "employees"] }, "on", "off"] })
}

data "andon_service" "try" {
  environment = andon_scale.try.environment
  name        = andon_scale.try.service
}

output "try" {
  value = data.andon_service.try.address
}
