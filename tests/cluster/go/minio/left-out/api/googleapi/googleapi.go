// Package googleapi has the error of Google's services that MinIO looks for.
package googleapi

// Error is an answer of a service.
type Error struct {
	Code    int
	Message string
	Errors  []ErrorItem
}

// ErrorItem is one reason for an Error.
type ErrorItem struct{ Reason, Message string }

// Error returns the message.
func (e *Error) Error() string { return e.Message }
