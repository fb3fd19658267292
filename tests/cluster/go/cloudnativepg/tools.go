//go:build tools

// Package tools names the program that is built from its own module, so that go.mod and go.sum pin it.
package tools

import _ "github.com/cloudnative-pg/cloudnative-pg/cmd/manager"
