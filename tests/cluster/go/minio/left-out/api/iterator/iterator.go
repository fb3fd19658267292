// Package iterator has the pages in which MinIO lists objects of Google Cloud Storage.
package iterator

import "errors"

// Pager lists pages.
type Pager struct{}

// NewPager lists what an iterator yields.
func NewPager(iterator any, size int, token string) *Pager { return &Pager{} }

// NextPage fails.
func (*Pager) NextPage(target any) (string, error) {
	return "", errors.New("this build has no client of Google Cloud Storage")
}
