#!/bin/bash
npm view '@github/copilot' version
