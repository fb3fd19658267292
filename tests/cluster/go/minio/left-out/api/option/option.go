// Package option has the options with which MinIO creates a client of Google Cloud Storage.
package option

// ClientOption is an option of a client.
type ClientOption any

// WithCredentialsJSON sets the credential.
func WithCredentialsJSON([]byte) ClientOption { return nil }

// WithScopes sets the scopes of access.
func WithScopes(...string) ClientOption { return nil }

// WithUserAgent sets the name of the client.
func WithUserAgent(string) ClientOption { return nil }
