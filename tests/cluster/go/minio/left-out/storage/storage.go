// Package storage has the calls of Google Cloud Storage's client that MinIO makes. Each fails, so a tier there is refused.
// The client and what it imports, such as Envoy's API, take 45 s of CPU time to compile.
package storage

import (
	"context"
	"errors"
	"io"

	"google.golang.org/api/option"
)

// ScopeReadWrite is the scope of access to objects.
const ScopeReadWrite = ""

var errMissing = errors.New("this build of MinIO has no client of Google Cloud Storage")

// Client has the calls. There is never one: NewClient fails.
type Client struct{}

// NewClient fails.
func NewClient(context.Context, ...option.ClientOption) (*Client, error) { return nil, errMissing }

// Bucket returns a bucket.
func (*Client) Bucket(string) *BucketHandle { return nil }

// BucketHandle is a bucket.
type BucketHandle struct{}

// Object returns an object of the bucket.
func (*BucketHandle) Object(string) *ObjectHandle { return nil }

// Objects lists objects of the bucket.
func (*BucketHandle) Objects(context.Context, *Query) *ObjectIterator { return nil }

// Query selects objects.
type Query struct {
	Delimiter, Prefix string
	Versions          bool
}

// ObjectIterator yields objects.
type ObjectIterator struct{}

// ObjectAttrs are the properties of an object.
type ObjectAttrs struct{}

// ObjectHandle is an object.
type ObjectHandle struct{}

// ReadCompressed returns the object, as it is stored.
func (o *ObjectHandle) ReadCompressed(bool) *ObjectHandle { return o }

// NewRangeReader fails.
func (*ObjectHandle) NewRangeReader(context.Context, int64, int64) (io.ReadCloser, error) {
	return nil, errMissing
}

// NewWriter returns a writer that fails.
func (*ObjectHandle) NewWriter(context.Context) *Writer { return &Writer{} }

// Delete fails.
func (*ObjectHandle) Delete(context.Context) error { return errMissing }

// Writer writes an object.
type Writer struct {
	StorageClass string
	Metadata     map[string]string
}

// Write fails.
func (*Writer) Write([]byte) (int, error) { return 0, errMissing }

// Close fails.
func (*Writer) Close() error { return errMissing }
