#!/bin/bash
npm view 'opencode-ai' version
