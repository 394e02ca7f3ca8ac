#!/bin/bash
npm view 'cline' version
